"""The edge to the cluster: kubeconfig, HTTP to the apiserver, watches and port-forward."""
