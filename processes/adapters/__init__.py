"""The hands that several processes share: input and output, no decisions."""
