"""Long proofs against the running service and the stand-ins, one module each: `python -m soak NAME [OPTIONS]`.

May import everything. A module offers `main(arguments)`, which prints figures and the seed to repeat them with, and
returns the exit status: 0 when everything held.
"""
