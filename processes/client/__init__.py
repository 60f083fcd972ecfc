"""NOT a process: what a Python program uses to talk to a hub. In an installation it is imported as `fleethub`."""
