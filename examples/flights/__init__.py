"""Flights through a topic, a table and jobs: `./scripts/demo`, or `python -m examples.flights.demo
[FILE]`."""
