"""Real RabbitMQ and PostgreSQL for the tests: private, on loopback, on free ports, and stopped by process id.

``find.py`` decides where a service comes from: a URL in the environment, one left running by ``make services``, the
programs installed on this machine, or docker. ``rabbitmq.py``, ``postgres.py`` and ``containers.py`` run one.
``breakable.py`` is one that a fault test may kill, and ``proxy.py`` a wire that it may cut.
"""
