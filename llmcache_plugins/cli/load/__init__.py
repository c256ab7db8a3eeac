"""What it takes to put a load on a cache: requests, a stage, calls, a crew of processes.

    questions --> calls, so many at a time --> a face of the cache --> the stage: a server,
                     in each process of the crew                       a provider behind HTTP

Serves `demo` and `bench`, and knows neither.
"""
