"""Training of the shipped networks: a table of recipes, and the loop that follows one."""
