"""The event log: SQLite or PostgreSQL, segments, copies, and what keeps them safe."""
