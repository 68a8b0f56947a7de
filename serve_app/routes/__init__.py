"""The routes of the service: one module for each group, each a function that returns a router."""
