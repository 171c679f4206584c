"""What busline costs, measured against the plainest code and against peers, in one run."""
