"""What a compiled program will need and how fast it can be, without a device.

`chips` knows the accelerators, `topology` how many of them stand where, `hlo`
reads the text of a compiled program, `collectives` and `costs` count what it
moves and computes, `memory` says whether it fits, and `roofline` makes seconds
of it.
"""
