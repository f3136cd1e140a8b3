"""The client of collectord."""
