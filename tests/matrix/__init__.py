"""tests/faults: every fault at every phase. world.py makes the hosts and the guest and looks at what became of them, phases.py says how a
phase is reached, actions.py what a fault does, expected.py what must come of it, cell.py plays one of them, wandering.py the random ones."""
