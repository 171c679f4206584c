"""What is alive while an App is open."""
