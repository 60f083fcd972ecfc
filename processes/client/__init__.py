"""NOT a process: what a Python program uses to talk to a hub. Installed, it is imported as `fleethub`."""
