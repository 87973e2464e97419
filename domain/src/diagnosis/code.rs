//! The closed list of codes. A code is never renamed and never re-used.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Retry, catalogue};

/// How a command ends that could not do what it was asked: its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Something else went wrong.
    Other = 1,
    /// The host is not fit to join.
    Preflight = 2,
    /// The configuration or the command line is wrong.
    Usage = 3,
    /// The token or the identity was refused.
    Refused = 4,
    /// Policy does not allow it.
    Denied = 5,
    /// The server is out of reach or busy.
    Unreachable = 6,
    /// The node is registered and did not become Ready in time.
    NotReady = 7,
    /// Stopped from outside; starting again goes on.
    Interrupted = 8,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $exit:ident, $retry:expr;)+) => {
        /// Why a join waits or stops.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$name),+];

            /// The stable name, `UPPER_SNAKE`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// What the code means, in one sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+),)+ }
            }

            /// The exit status of a command that this code ends.
            #[must_use]
            pub const fn exit(self) -> Exit {
                match self { $(Self::$name => Exit::$exit,)+ }
            }

            /// Seconds until asking again can help; `None` where something must
            /// change on this machine's side first.
            const fn usual_seconds(self) -> Option<u64> {
                match self { $(Self::$name => $retry,)+ }
            }
        }
    };
}

codes! {
    /// The host's name is no DNS-1123 subdomain, or is `localhost`.
    HostnameInvalid = "HOSTNAME_INVALID", Preflight, Some(3);
    /// Too little space below a directory that the node needs.
    DiskSpaceTooLow = "DISK_SPACE_TOO_LOW", Preflight, Some(3);
    /// The machine's clock and the server's differ too much.
    ClockWrong = "CLOCK_WRONG", Preflight, Some(5);
    /// Files of another join lie on the machine.
    LeftoversFound = "LEFTOVERS_FOUND", Preflight, Some(3);
    /// The agent is not root, or lacks a capability.
    NotPrivileged = "NOT_PRIVILEGED", Preflight, None;
    /// Swap is on and the kubelet refuses swap.
    SwapOn = "SWAP_ON", Preflight, Some(3);
    /// The host is on cgroup v1.
    CgroupVersion1 = "CGROUP_VERSION1", Preflight, Some(3);
    /// A kernel module that pod networking needs cannot be had.
    KernelModuleMissing = "KERNEL_MODULE_MISSING", Preflight, Some(3);
    /// A kernel setting that pod networking needs is off.
    SysctlWrong = "SYSCTL_WRONG", Preflight, Some(3);
    /// No container runtime answers.
    RuntimeMissing = "RUNTIME_MISSING", Preflight, Some(3);
    /// A container runtime runs with CRI switched off.
    CriDisabled = "CRI_DISABLED", Preflight, Some(3);
    /// A container runtime could not load its CRI plugin.
    CriFailed = "CRI_FAILED", Preflight, Some(3);
    /// The kernel has no inotify instance left for a container runtime.
    InotifyExhausted = "INOTIFY_EXHAUSTED", Preflight, Some(3);
    /// There is no kubelet for this machine.
    KubeletMissing = "KUBELET_MISSING", Preflight, Some(3);
    /// The kubelet on the machine is not one that this node can run.
    KubeletUnfit = "KUBELET_UNFIT", Preflight, Some(3);
    /// A port that the node needs is held by another process.
    PortTaken = "PORT_TAKEN", Preflight, Some(3);
    /// A program that the kubelet calls is missing.
    ToolMissing = "TOOL_MISSING", Preflight, Some(3);
    /// The server's name does not resolve.
    NameNotResolved = "NAME_NOT_RESOLVED", Unreachable, Some(2);
    /// No connection to the server could be made.
    ConnectionFailed = "CONNECTION_FAILED", Unreachable, Some(2);
    /// The line was closed before the server spoke TLS.
    ConnectionClosed = "CONNECTION_CLOSED", Unreachable, Some(2);
    /// The TLS handshake failed.
    TlsFailed = "TLS_FAILED", Unreachable, Some(5);
    /// Something between agent and server ends TLS.
    TlsTerminated = "TLS_TERMINATED", Refused, Some(5);
    /// The server's CA is not the pinned one.
    PinMismatch = "PIN_MISMATCH", Refused, Some(5);
    /// The agent has no token, and needs one.
    TokenMissing = "TOKEN_MISSING", Usage, None;
    /// The token's text is not as it was printed.
    TokenMalformed = "TOKEN_MALFORMED", Refused, None;
    /// The token's time is over, by the server's clock.
    TokenExpired = "TOKEN_EXPIRED", Refused, None;
    /// The token is unknown or revoked, or its secret was wrong.
    TokenRejected = "TOKEN_REJECTED", Refused, None;
    /// All of the token's uses are reserved by other keys.
    TokenSpent = "TOKEN_SPENT", Refused, None;
    /// The token is bound to another name, pool or network.
    TokenBoundElsewhere = "TOKEN_BOUND_ELSEWHERE", Denied, None;
    /// The node name belongs to another live machine.
    NodeNameTaken = "NODE_NAME_TAKEN", Denied, Some(5);
    /// The policy does not allow the name.
    NameNotAllowed = "NAME_NOT_ALLOWED", Denied, None;
    /// The machine is banned.
    MachineBanned = "MACHINE_BANNED", Denied, None;
    /// A limit on certificates is reached for now.
    QuotaReached = "QUOTA_REACHED", Unreachable, Some(30);
    /// The join waits for a person.
    ApprovalPending = "APPROVAL_PENDING", Unreachable, Some(2);
    /// A person refused the join.
    ApprovalDenied = "APPROVAL_DENIED", Denied, None;
    /// The server is at its limit of joins.
    ServerBusy = "SERVER_BUSY", Unreachable, Some(2);
    /// The server cannot reach its store.
    StoreUnavailable = "STORE_UNAVAILABLE", Unreachable, Some(2);
    /// Nothing signs the certificate.
    SignerUnavailable = "SIGNER_UNAVAILABLE", Unreachable, Some(2);
    /// The server's account lacks a right in the cluster.
    ClusterPermissionMissing = "CLUSTER_PERMISSION_MISSING", Unreachable, Some(3);
    /// An admission webhook, policy or plugin of the cluster refuses an object.
    AdmissionRefused = "ADMISSION_REFUSED", NotReady, Some(3);
    /// Agent and server have no protocol in common.
    VersionUnsupported = "VERSION_UNSUPPORTED", Refused, None;
    /// The certificate request is not acceptable.
    CertificateRequestInvalid = "CERTIFICATE_REQUEST_INVALID", Denied, None;
    /// A certificate is not the one that policy allows.
    CertificateRejected = "CERTIFICATE_REJECTED", Denied, None;
    /// The node's certificate ended while the machine was away.
    CertificateExpired = "CERTIFICATE_EXPIRED", Refused, None;
    /// The certificate was replaced by a newer one.
    CertificateSuperseded = "CERTIFICATE_SUPERSEDED", Denied, None;
    /// A file could not be written; all of the change was rolled back.
    FileNotWritten = "FILE_NOT_WRITTEN", Preflight, Some(3);
    /// The server's profile for the node cannot be applied.
    ProfileInvalid = "PROFILE_INVALID", NotReady, Some(10);
    /// An API server that the profile names is out of the machine's reach.
    ApiUnreachable = "API_UNREACHABLE", NotReady, Some(2);
    /// The service manager did not do what a node needs.
    ServiceManagerFailed = "SERVICE_MANAGER_FAILED", NotReady, Some(3);
    /// The container runtime ends, again and again.
    RuntimeFailing = "RUNTIME_FAILING", NotReady, Some(2);
    /// The kubelet ends, again and again.
    KubeletFailing = "KUBELET_FAILING", NotReady, Some(2);
    /// The image that every pod begins with is not there and cannot be fetched.
    PauseImageMissing = "PAUSE_IMAGE_MISSING", NotReady, Some(3);
    /// The container runtime has no pod network.
    PodNetworkMissing = "POD_NETWORK_MISSING", NotReady, Some(2);
    /// The machine is short of disk, memory or process ids.
    NodeUnderPressure = "NODE_UNDER_PRESSURE", NotReady, Some(5);
    /// The server has no bundle of node software for this machine.
    BundleMissing = "BUNDLE_MISSING", NotReady, Some(3);
    /// The bundle of node software is damaged, or not the cluster's own.
    BundleDamaged = "BUNDLE_DAMAGED", Refused, Some(10);
    /// The Node is registered and not yet Ready.
    NodeNotReady = "NODE_NOT_READY", NotReady, Some(2);
    /// A cloud controller has not initialized the Node yet.
    CloudProviderPending = "CLOUD_PROVIDER_PENDING", NotReady, Some(5);
    /// Nobody has approved the certificate that the kubelet wants to serve with.
    ServingCertificatePending = "SERVING_CERTIFICATE_PENDING", NotReady, Some(5);
    /// The routes to the pods of other nodes could not be laid.
    PodRoutesNotLaid = "POD_ROUTES_NOT_LAID", NotReady, Some(3);
    /// The kubelet asks to serve under a name that is not seen to be its own.
    ServingNameUnproven = "SERVING_NAME_UNPROVEN", NotReady, Some(5);
    /// A disruption budget keeps a pod on a node that leaves.
    DisruptionBudgetReached = "DISRUPTION_BUDGET_REACHED", Denied, Some(2);
    /// Pods of a node that leaves have not ended yet.
    PodsEnding = "PODS_ENDING", Unreachable, Some(1);
    /// The API server does not trust the CA that signs the nodes' certificates.
    CertificateUntrusted = "CERTIFICATE_UNTRUSTED", NotReady, Some(5);
    /// The peer sent a message out of order or out of bounds.
    ProtocolViolation = "PROTOCOL_VIOLATION", Refused, None;
    /// The agent's line was lost before its join ended.
    AgentLost = "AGENT_LOST", Unreachable, Some(2);
    /// The agent was told to stop.
    Interrupted = "INTERRUPTED", Interrupted, None;
    /// A cause that Berth does not know: a defect to report.
    Unexplained = "UNEXPLAINED", Other, Some(10);
}

impl Code {
    /// The sentence that names the cause: `{key}` stands for a value, and a
    /// clause in `[…]` is said only where its values may be seen.
    #[must_use]
    pub const fn cause_template(self) -> &'static str {
        catalogue::cause(self)
    }

    /// The sentence that says how to mend it, in the same form.
    #[must_use]
    pub const fn mend_template(self) -> &'static str {
        catalogue::mend(self)
    }

    /// The retry that a diagnosis of this code carries unless it says otherwise.
    #[must_use]
    pub const fn usual_retry(self) -> Retry {
        match self.usual_seconds() {
            Some(seconds) => Retry::After(Duration::from_secs(seconds)),
            None => Retry::Never,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is no code of this version.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no diagnosis code of this version")]
pub struct NotACode(String);

impl FromStr for Code {
    type Err = NotACode;

    fn from_str(text: &str) -> Result<Self, NotACode> {
        Self::ALL
            .into_iter()
            .find(|code| code.as_str() == text)
            .ok_or_else(|| NotACode(text.chars().take(64).collect()))
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
