"""The key agent."""
