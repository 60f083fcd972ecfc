"""What fleethub is installed from where there is no checkout: a Debian package, a container's image, a NixOS module.

All three hold the same tree (tree.py): an environment for Python with fleethub and its libraries, in the very versions
that this checkout's tests run with. None needs a network. debian.py makes the package, Containerfile is the image's
recipe, nixos/ is the module. program.py is what bin/package runs.
"""
