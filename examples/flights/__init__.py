"""Flight records through typed handlers: statistics, late flights, and rows that are broken on purpose."""
