"""How the state looks from outside: views, pages of the API, the status, a replica in encoded rows. Pure."""
