"""fleethub: a hub for fleets of bare-metal servers that cannot freeze unnoticed and loses no command."""
