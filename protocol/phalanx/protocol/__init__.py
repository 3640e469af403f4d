"""The wire and its state machines: bytes in, messages out.

Nothing here opens a socket, reads a clock, draws a random number or logs; nonces and the time come in as
arguments. The same code therefore runs in the controller, the agent, the tests and the simulator.
"""

#: Oldest and newest protocol version this build speaks. Both are inside the authenticated transcript.
#: 1: first version.
VERSION_MIN = 1
VERSION = 1
