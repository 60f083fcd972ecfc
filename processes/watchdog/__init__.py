"""The judgement of the others: pulses, canary, evidence, remedy, incidents."""
