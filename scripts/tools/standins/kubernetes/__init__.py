"""Stand-in for the `kubernetes` provider plugin, for the resources that this project uses;
everything else is refused by name.

It follows pulumi-kubernetes 4.32 (`provider/pkg` in pulumi/pulumi-kubernetes): state has the same
shape, so that the official plugin can take over.

- `kubeconfig`: from the provider's settings to one cluster and its credentials;
- `client`: the API server's resources over HTTPS, without a generated client (its import alone
  takes longer than an update without changes);
- `objects`: pure functions over objects: names, differences, what forces a replacement, drift, the
  shape of the state;
- `wait`: when an object counts as ready, and why it is not;
- `release`: `helm.sh/v3:Release` by the `helm` program; `charts`: what a chart is, and what Helm
  stored of a release;
- `plugin`: the provider.
"""
