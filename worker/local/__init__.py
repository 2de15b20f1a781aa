"""The whole system on one machine: broker, worker, sweeper and Flower."""
