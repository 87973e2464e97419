//! What each code says. `{key}` is a value of the diagnosis; a clause in `[…]`
//! is said only to a reader who may see its values.

use super::Code;

/// The cause, as a template.
pub(super) const fn cause(code: Code) -> &'static str {
    match code {
        Code::HostnameInvalid => "the host name {hostname} cannot be a node name: {problem}",
        Code::DiskSpaceTooLow => "{path} has {found} free, and the node needs {wanted}",
        Code::ClockWrong => "this machine's clock is {offset} off: it says {found}, the server says {wanted}",
        Code::LeftoversFound => "this machine has files of {owner}: {paths}",
        Code::NotPrivileged => "the agent runs as user {uid} and lacks {missing}",
        Code::SwapOn => "swap is on: {areas}",
        Code::CgroupVersion1 => "the host is on cgroup v1",
        Code::KernelModuleMissing => "the kernel module {module} is not there[: {error}]",
        Code::SysctlWrong => "{sysctl} is {found} and must be {wanted}",
        Code::RuntimeMissing => "no container runtime answers on {sockets}",
        Code::CriDisabled => "{runtime} runs on {socket} with its CRI plugin switched off",
        Code::CriFailed => "{runtime} runs on {socket} and could not load its CRI plugin: {error}",
        Code::InotifyExhausted => {
            "{runtime} runs on {socket} and could not load its CRI plugin, as its user's inotify instances are all taken (fs.inotify.max_user_instances is {found}): {error}"
        }
        Code::KubeletMissing => "no kubelet was found in {paths}",
        Code::KubeletUnfit => "the kubelet {path} cannot run as this node: {problem}",
        Code::PortTaken => "port {port} is held by {holder}",
        Code::ToolMissing => "the program {tool} is missing",
        Code::NameNotResolved => "the name {host} does not resolve: {error}[ (asked: {servers})]",
        Code::ConnectionFailed => "no connection to {address}: {error} after {elapsed}",
        Code::ConnectionClosed => "{address} took the connection and closed it {when}",
        Code::TlsFailed => "the TLS handshake with {address} failed: {error}",
        Code::TlsTerminated => {
            "TLS is ended between this machine and the server: the two ends of the line hold different keys"
        }
        Code::PinMismatch => "the server's CA is {found}, and the pin asks for {wanted}",
        Code::TokenMissing => "this machine has no certificate and was given no token[: {problem}]",
        Code::TokenMalformed => "the token is not as it was printed: {problem}",
        Code::TokenExpired => "the token {token} expired at {expired}; the server's clock says {now}",
        Code::TokenRejected => "the server does not accept the token {token}[ ({reason})]",
        Code::TokenSpent => {
            "the token {token} was good for {uses} use(s), and other machines have taken them[: {usedBy}]"
        }
        Code::TokenBoundElsewhere => {
            "the token {token} is bound to the {binding} {wanted}, and this machine has {found}"
        }
        Code::NodeNameTaken => {
            "the name {name} belongs to another machine, last seen {lastSeen}[; its machine id is {machine}]"
        }
        Code::NameNotAllowed => "the name {name} does not match the allowed pattern {pattern}",
        Code::MachineBanned => "this machine is banned from the cluster[: by {by} at {since}: {reason}]",
        Code::QuotaReached => "{quota} is reached: {found} of {limit}; it frees at {frees}",
        Code::ApprovalPending => "the join {join} waits for approval since {since}",
        Code::ApprovalDenied => "the join {join} was refused[ by {by}: {reason}]",
        Code::ServerBusy => "the server works at its limit; this machine's place in the queue is {position}",
        Code::StoreUnavailable => "the server cannot reach its store since {since}[: {error}]",
        Code::SignerUnavailable => {
            "no certificate could be signed[: {error}][: the request {csr} is approved since {since} and has no certificate; {holder}]"
        }
        Code::ClusterPermissionMissing => {
            "the server may not {verb} {resource} in the cluster[, as {account}]"
        }
        Code::AdmissionRefused => "{by} refuses[ the {object}]: {message}",
        Code::VersionUnsupported => "the agent speaks {found}, the server {wanted}",
        Code::CertificateRequestInvalid => "the certificate request is not acceptable: {problem}",
        Code::CertificateRejected => "the certificate is not acceptable: {problem}",
        Code::CertificateExpired => "this node's certificate expired at {expired}",
        Code::CertificateSuperseded => "the certificate of {name} was replaced by a newer one[ at {since}]",
        Code::FileNotWritten => "{path} could not be written: {error}; rolled back: {rolledBack}",
        Code::ProfileInvalid => "the server's profile cannot be applied: {problem}",
        Code::ApiUnreachable => "the API server {address} is not reachable from this machine: {error}",
        Code::ServiceManagerFailed => "the service manager did not {action} {unit}: {error}",
        Code::RuntimeFailing => "{unit} ends with {status}[; its last words: {said}]",
        Code::KubeletFailing => "{unit} ends with {status}[; its last words: {said}]",
        Code::PauseImageMissing => {
            "the image {image}, which every pod begins with, is not on the machine and cannot be fetched: {error}"
        }
        Code::PodNetworkMissing => {
            "the container runtime has no pod network: {message}; {directory} holds {found}"
        }
        Code::NodeUnderPressure => "the node {name} is short of {resource}: {figures}",
        Code::BundleMissing => {
            "the server has no bundle of node software for this machine: it has {found}, and the machine needs {wanted}"
        }
        Code::BundleDamaged => "the bundle of node software[ in {file}] cannot be used: {problem}",
        Code::NodeNotReady => "the node {name} is not Ready: {condition}",
        Code::CloudProviderPending => {
            "the Node {name} has the taint {taint}, which a cloud controller manager takes away, and none has"
        }
        Code::ServingCertificatePending => {
            "the certificate request {request} of the kubelet on {name} waits for approval since {since}"
        }
        Code::PodRoutesNotLaid => "the routes to the pods of other nodes could not be laid: {error}",
        Code::ServingNameUnproven => {
            "the kubelet on {name} asks by {request} to serve as {claimed}, and that is not seen to be its own: {problem}[; what the inventory's file says now is not in force: {inventory}]"
        }
        Code::DisruptionBudgetReached => "the pod {pod} may not be evicted from {name} yet: {message}",
        Code::PodsEnding => "{count} pod(s) on {name} have not ended yet: {pods}",
        Code::CertificateUntrusted => {
            "the API server does not trust the issuer of this node's certificate: it is signed by {issuer}, and the API server's client CAs are {trusted}"
        }
        Code::ProtocolViolation => "expected {expected} and got {found}",
        Code::AgentLost => "the agent's line was lost while {step}",
        Code::Interrupted => "the join was interrupted in its {step}",
        Code::Unexplained => "an unknown cause: {evidence}",
    }
}

/// The mend, as a template.
pub(super) const fn mend(code: Code) -> &'static str {
    match code {
        Code::HostnameInvalid => {
            "set a legal name: hostnamectl set-hostname {suggestion}, or ask for one with --node-name"
        }
        Code::DiskSpaceTooLow => "free space below {path}, or put it on a larger disk",
        Code::ClockWrong => {
            "set the clock: date --utc --set={wanted}; then let chronyd or systemd-timesyncd keep it"
        }
        Code::LeftoversFound => {
            "{undo}; or keep them and join all the same with --ignore-preflight-errors={check}"
        }
        Code::NotPrivileged => "run it as root, or give a directory to write to with --root DIR",
        Code::SwapOn => {
            "swapoff --all, and take the swap lines out of /etc/fstab; or let the profile's kubelet take it, with failSwapOn: false"
        }
        Code::CgroupVersion1 => {
            "boot with systemd.unified_cgroup_hierarchy=1; or let the profile's kubelet take it, with failCgroupV1: false"
        }
        Code::KernelModuleMissing => "modprobe {module}, or install the kernel's module package",
        Code::SysctlWrong => "sysctl -w {sysctl}={wanted}",
        Code::RuntimeMissing => "install and start containerd 2 or newer[: {install}]",
        Code::CriDisabled => {
            "take \"cri\" out of disabled_plugins in /etc/containerd/config.toml, then systemctl restart containerd"
        }
        Code::CriFailed => {
            "correct what it names, mostly in /etc/containerd/config.toml, then systemctl restart containerd"
        }
        Code::InotifyExhausted => {
            "sysctl -w fs.inotify.max_user_instances={wanted} && echo fs.inotify.max_user_instances={wanted} >/etc/sysctl.d/91-inotify.conf && systemctl restart containerd"
        }
        Code::KubeletMissing => "install the kubelet of the cluster's version[: {install}]",
        Code::KubeletUnfit => "install the kubelet {wanted}",
        Code::PortTaken => "stop {holder}",
        Code::ToolMissing => "install the package {package}[: {install}]",
        Code::NameNotResolved => "correct the endpoint's name, or the machine's DNS in /etc/resolv.conf",
        Code::ConnectionFailed => {
            "check that berth-server or its balancer listens on {address} and that no firewall is between"
        }
        Code::ConnectionClosed => {
            "check that a berth-server is up behind the balancer and that both agree on the PROXY protocol"
        }
        Code::TlsFailed => {
            "point the agent at berth-server's join port: it speaks TLS 1.3 with ALPN h2 and nothing else"
        }
        Code::TlsTerminated => {
            "let the balancer pass TLS through (TCP mode); it must not decrypt the join port"
        }
        Code::PinMismatch => {
            "if the server is the right one, make a new token there: berth-server token create --print-join-command"
        }
        Code::TokenMissing => {
            "berth-server token create, then give the token by --token-file FILE (- for standard input)"
        }
        Code::TokenMalformed => {
            "copy the whole token again: one word that begins with berth1., or kubeadm's bootstrap token (6 characters, a dot, 16 characters)"
        }
        Code::TokenExpired => "berth-server token create --print-join-command",
        Code::TokenRejected => {
            "berth-server token list shows the live ones; make one: berth-server token create --print-join-command"
        }
        Code::TokenSpent => "berth-server token create --print-join-command, one token for this machine",
        Code::TokenBoundElsewhere => {
            "use a token made for this machine: berth-server token create --{binding} {found}"
        }
        Code::NodeNameTaken => {
            "give this machine another name, or release it: berth-server nodes forget {name}"
        }
        Code::NameNotAllowed => {
            "rename the machine, ask for another name with --node-name, or make a token for it: berth-server token create --name {name}"
        }
        Code::MachineBanned => "berth-server nodes unban {name}, if it may come back",
        Code::QuotaReached => "wait: the join goes on by itself at {frees}",
        Code::ApprovalPending => "berth-server joins approve {join}",
        Code::ApprovalDenied => "ask the cluster's operators; a new attempt asks again",
        Code::ServerBusy => "wait: the join goes on by itself",
        Code::StoreUnavailable => "mend the server's store; the join goes on by itself",
        Code::SignerUnavailable => {
            "[{remedy}; or look at ]berth-server config check; the join goes on by itself when the signer is back"
        }
        Code::ClusterPermissionMissing => "add this rule to {role}: {rule}",
        Code::AdmissionRefused => "change the rules of {by}, or mend it; the join goes on by itself",
        Code::VersionUnsupported => "install the berth-agent of the server's version",
        Code::CertificateRequestInvalid => {
            "this is a fault of the agent: install the berth-agent of the server's version"
        }
        Code::CertificateRejected => {
            "remove the machine's identity with berth-agent reset and join again with a new token"
        }
        Code::CertificateExpired => {
            "make a new token for it: berth-server token create --name {name} --print-join-command"
        }
        Code::CertificateSuperseded => {
            "if two machines share a disk image, reset one: berth-agent reset; then join it with a new token"
        }
        Code::FileNotWritten => "make {path} writable (space, mount options, kind of file)",
        Code::ProfileInvalid => {
            "correct the profile, in the server's configuration or the object that is named: {field}"
        }
        Code::ApiUnreachable => {
            "let the machine reach {address} (route, firewall), or name an endpoint that it reaches in the profile's apiEndpoints"
        }
        Code::ServiceManagerFailed => "look there: systemctl status {unit}",
        Code::RuntimeFailing => {
            "journalctl --unit {unit} shows all of it; correct /etc/containerd/config.toml"
        }
        Code::KubeletFailing => {
            "[correct {setting} in the profile, or in a file below /etc/kubernetes/kubelet.conf.d; ]journalctl --unit {unit} shows all of it"
        }
        Code::PauseImageMissing => {
            "import it: ctr --namespace k8s.io images import FILE; or put it into the node's bundle, or let the machine reach the registry"
        }
        Code::PodNetworkMissing => {
            "apply the cluster's network add-on, or choose network bridge in the profile; by hand: put a configuration into {directory}"
        }
        Code::NodeUnderPressure => "free some {resource} on the machine; the kubelet notices by itself",
        Code::BundleMissing => {
            "make it with berth-server bundle create, and name it in the server's configuration ({field}); or let the pool's machines bring their own software, with bundle: none of the pool"
        }
        Code::BundleDamaged => {
            "look at it where it lies: berth-server bundle verify[ {file}]; make it anew there with berth-server bundle create, and the join goes on by itself"
        }
        Code::NodeNotReady => "berth-agent check on the machine shows what fails",
        Code::CloudProviderPending => {
            "run the cloud's controller manager, or leave cloud-provider=external out of the kubelet's flags; by hand: kubectl taint node {name} {taint}-"
        }
        Code::ServingCertificatePending => "kubectl certificate approve {request}",
        Code::PodRoutesNotLaid => {
            "install ip and nft where one is missing (packages iproute2 and nftables); nodes whose pods the agent connects must be on one network, without a router in between"
        }
        Code::ServingNameUnproven => {
            "correct --node-ip or --hostname-override of the kubelet on {name}; if a balancer is before berth-server, let it send the PROXY protocol; if it is the node's own all the same, give it to {name} in berth-server's inventory (kubernetes.inventory), or approve this one request by hand: kubectl certificate approve {request}"
        }
        Code::DisruptionBudgetReached => {
            "bring up more pods of its kind elsewhere, or loosen the budget: kubectl get poddisruptionbudgets --namespace {namespace}; the leave goes on by itself. To go all the same: berth-agent leave --no-drain"
        }
        Code::PodsEnding => {
            "wait; kubectl get pods --all-namespaces --field-selector spec.nodeName={name} shows them. To go all the same: berth-agent leave --no-drain"
        }
        Code::CertificateUntrusted => {
            "add that CA to the file that kube-apiserver's --client-ca-file names, or let berth-server sign with a CA that is in it"
        }
        Code::ProtocolViolation => "install the same version of berth-agent and berth-server",
        Code::AgentLost => {
            "the agent comes back by itself; if it does not, look there: systemctl status berth-agent"
        }
        Code::Interrupted => "start it again: it goes on where it stopped",
        Code::Unexplained => "please report this as a defect, with the output of berth-server joins explain",
    }
}
