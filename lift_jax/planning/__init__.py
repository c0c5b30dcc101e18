"""Memory, cost and time of compiled programs, without the devices.

`chips` describes accelerators and `topology` their arrangement; `hlo` parses a
compiled program, `collectives` and `costs` count its communication, FLOPs and
memory traffic, `memory` checks whether it fits, and `roofline` estimates the
time of a step.
"""
