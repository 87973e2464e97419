//! The closed lists that the labels of metrics take their values from, beside
//! phases, outcomes and diagnosis codes.

macro_rules! label_values {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $of:literal])+ $value:ident = $text:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[doc = $of])+ $value,)+
        }

        impl $name {
            /// All values.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$value),+];

            /// The value of the label.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }
        }
    };
}

label_values! {
    /// How a connection to the join listener began.
    ConnectionOutcome {
        /// TLS stands.
        Accepted = "accepted",
        /// The listener or the source address has too many.
        Limited = "limited",
        /// The PROXY header was missing, malformed or not to be trusted.
        ProxyHeader = "proxy_header",
        /// The TLS handshake failed.
        Handshake = "handshake",
        /// The header or the handshake took too long.
        TimedOut = "timed_out",
    }
}

label_values! {
    /// What the server holds of a node.
    NodeState {
        /// It attends and its checks hold.
        Ready = "ready",
        /// It does not attend, or a check does not hold.
        NotReady = "not_ready",
        /// It may not come back until the ban is lifted.
        Banned = "banned",
        /// It has left politely.
        Left = "left",
    }
}

label_values! {
    /// What became of spans that agents sent over their lines.
    RelayOutcome {
        /// They go on to the collector.
        Passed = "passed",
        /// The node has sent more than its share.
        Limited = "limited",
        /// Their names are none of Berth's.
        Unknown = "unknown",
    }
}

label_values! {
    /// Which certificate of the server's.
    Certificate {
        /// The CA that signs for nodes.
        Ca = "ca",
        /// The join listener's own.
        Serving = "serving",
    }
}

label_values! {
    /// What lets only so much through. The share of spans that a node may send counts as
    /// [`RelayOutcome`].
    Limiter {
        /// All connections together.
        Connections = "connections",
        /// Connections of one source that have proved nothing.
        Source = "source",
        /// Joins that are worked on at one time.
        Joins = "joins",
        /// Transfers of bundles.
        Transfers = "transfers",
    }
}

label_values! {
    /// What a limiter decided.
    Decision {
        /// Let through at once.
        Passed = "passed",
        /// Made to wait for its turn.
        Waited = "waited",
        /// Turned away.
        Refused = "refused",
    }
}

label_values! {
    /// Where something waits its turn.
    Queue {
        /// Writes to the embedded store, for the one thread that writes.
        Writes = "writes",
        /// Questions to the embedded store, for a free reader.
        Reads = "reads",
        /// Joins, for a place among those that are worked on.
        Joins = "joins",
        /// Transfers of bundles, for a place.
        Transfers = "transfers",
        /// Connections, for their turn at the TLS handshake.
        Handshakes = "handshakes",
        /// Redemptions of tokens, for a write to the API server.
        Redemptions = "redemptions",
        /// Events for `kubectl describe`, for a write to the API server.
        Events = "events",
        /// The server's own spans, for the collector.
        Spans = "spans",
        /// Agents' spans, for the collector.
        RelayedSpans = "relayed_spans",
    }
}

label_values! {
    /// Who signs for nodes.
    SignerKind {
        /// The CA in the server's data directory.
        Own = "own",
        /// A CA whose files others keep.
        Files = "files",
        /// The cluster, by its certificate requests.
        Cluster = "cluster",
    }
}

label_values! {
    /// What the API server was asked to do.
    ApiVerb {
        /// Read one object.
        Get = "get",
        /// Read many.
        List = "list",
        /// Follow what changes; the time is that to the first word of the answer.
        Watch = "watch",
        /// Make an object.
        Create = "create",
        /// Write an object whole.
        Update = "update",
        /// Change a part of an object.
        Patch = "patch",
        /// Remove objects.
        Delete = "delete",
    }
}

label_values! {
    /// The kind of object that the API server was asked for, as its URLs say it.
    ApiKind {
        /// Berth's tokens.
        JoinTokens = "jointokens",
        /// Berth's joins.
        NodeJoins = "nodejoins",
        /// Berth's profiles.
        NodeProfiles = "nodeprofiles",
        /// Berth's bans.
        MachineBans = "machinebans",
        /// Certificate requests.
        CertificateRequests = "certificatesigningrequests",
        /// Nodes.
        Nodes = "nodes",
        /// Leases.
        Leases = "leases",
        /// Events.
        Events = "events",
        /// Secrets.
        Secrets = "secrets",
        /// ConfigMaps.
        ConfigMaps = "configmaps",
        /// Namespaces.
        Namespaces = "namespaces",
        /// Anything else.
        Other = "other",
    }
}

label_values! {
    /// How the API server answered.
    ApiOutcome {
        /// As it was asked.
        Ok = "ok",
        /// The object is there already, or was changed (409).
        Conflict = "conflict",
        /// It would not (any other 4xx).
        Refused = "refused",
        /// It could not (5xx).
        Failed = "failed",
        /// It was not reached, or the connection broke.
        Unreachable = "unreachable",
        /// Whoever asked waited no longer: its deadline passed, most often.
        Abandoned = "abandoned",
    }
}

label_values! {
    /// Whose spans go to the collector.
    SpanPath {
        /// The server's own.
        Own = "own",
        /// Those that agents sent over their lines.
        Relayed = "relayed",
    }
}

label_values! {
    /// What became of spans on their way to the collector.
    SpanOutcome {
        /// The collector has acknowledged them.
        Delivered = "delivered",
        /// There was no room in the queue.
        Dropped = "dropped",
        /// The collector did not take them in time.
        Failed = "failed",
    }
}

label_values! {
    /// What became of Events for `kubectl describe`.
    EventOutcome {
        /// The API server has them.
        Written = "written",
        /// There was no room in the queue, or in the memory of what was said.
        Dropped = "dropped",
        /// The API server did not take them.
        Failed = "failed",
    }
}
