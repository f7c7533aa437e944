"""The routes: one file a group of operations, each with ``add(app, service)``."""
