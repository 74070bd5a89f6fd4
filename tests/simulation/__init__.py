"""A simulation of the whole program in one process: one seed owns time, chance, network, disks, crashes and order."""
