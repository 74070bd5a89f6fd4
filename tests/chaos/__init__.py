"""Chaos on real processes: everything that may fail is made to, under load, and then each callback is looked for by id.

``schedule.py`` draws the faults from a seed, ``system.py`` runs the processes, ``faults.py`` breaks them, ``bank.py``
sends, ``shop.py`` registers orders, ``examine.py`` reads the tables and ``report.py`` says what came of it.
"""
