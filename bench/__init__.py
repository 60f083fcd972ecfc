"""What bin/bench measures: this hub under loads of many kinds, and beside it what somebody might use in its place."""
