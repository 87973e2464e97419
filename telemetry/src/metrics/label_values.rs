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
