"""The truth: hosts, commands, runs; the one state loop; the only writer of the database."""
