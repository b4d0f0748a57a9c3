"""Networks, one module a platform. They know nothing of Istio."""
