"""What outside things say and take: the API server, Envoy, istiod, the records of Helm, Prometheus."""
