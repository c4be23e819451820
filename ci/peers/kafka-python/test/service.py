"""In place of the module of this name, which the source distribution leaves out: a broker that somebody else started."""


class ExternalService:
    def __init__(self, host, port):
        self.host = host
        self.port = port


class SpawnedService:
    """Never made: KAFKA_URI names a broker that runs."""
