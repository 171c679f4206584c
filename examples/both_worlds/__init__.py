"""Photos come as a stream and are worked on as jobs, in one App and one trace."""
