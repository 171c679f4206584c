"""`python -m busline` is the command `busline`."""

from busline.cli import main

main()
