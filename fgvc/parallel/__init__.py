"""This process among others: its process group, its device, and the signals that stop it."""
