"""The verbs, one file a group of them."""
