"""A program of a user: machines that it creates itself join the mesh of a cluster that exists."""

import pulumi
from istio_vm_mesh.config.existing import ExistingGateway
from istio_vm_mesh.config.mesh import MeshSettings
from istio_vm_mesh.config.workload import Probe, Service, TcpProbe, WorkloadSettings
from istio_vm_mesh.istio.control_plane import Mesh, MeshArgs
from istio_vm_mesh.istio.workload import Workload, WorkloadArgs, namespaces
from istio_vm_mesh.kubernetes import check_cluster, cluster_options
from istio_vm_mesh.machines.machine import Machine, MachineArgs
from istio_vm_mesh.platforms.existing.cluster import ExistingClusterArgs, existing_cluster
from istio_vm_mesh.platforms.existing.machine import SshHostArgs, ssh_host
from pulumi_gcp import compute

cluster_args = ExistingClusterArgs(
    network="pods", pod_cidr="10.20.0.0/16", context="production", gateway=ExistingGateway(address="10.10.0.250")
)
cluster = check_cluster("cluster-check", existing_cluster(cluster_args))
in_cluster = cluster_options("kubernetes", cluster)
mesh = Mesh("mesh", MeshArgs(settings=MeshSettings(adopt=True, version="1.31.0"), cluster=cluster), in_cluster)
ready = namespaces(["data"], mesh, in_cluster)["data"]
settings = WorkloadSettings(
    name="database",
    namespace="data",
    labels={"app": "database"},
    ports={"tcp": 5432},
    probe=Probe(tcp=TcpProbe(port=5432)),
    services={"database": Service(ports={"tcp": 5432})},
)
names = ["database-1", "database-2"]
database = Workload("database", WorkloadArgs(settings=settings, mesh=mesh, machines=names, namespace_resources=ready), in_cluster)
user = pulumi.Config().get("user") or "admin"
for name in names:
    vm = compute.Instance(
        f"{name}-vm",
        machine_type="e2-small",
        zone="europe-west1-b",
        boot_disk=compute.InstanceBootDiskArgs(),
        network_interfaces=[compute.InstanceNetworkInterfaceArgs(network="default")],
    )
    server = pulumi.Output.all(host=vm.network_interfaces[0].network_ip, instance_id=vm.instance_id).apply(
        lambda values: SshHostArgs(**values, user=user, accept_any_host_key=True)
    )
    machine = Machine(name, MachineArgs(workload=database, host=ssh_host(server, patience_s=300)))
    pulumi.export(name, machine.entry)
