"""How the state looks from outside: views, pages of the API, the status, the replica of encoded rows. Pure."""
