"""The ground floor: words and rules without I/O. Nothing here imports another part of busline."""
