//! A fresh token in the forms in which machines get it. None of them puts the
//! secret among the arguments of a process.

use berth_domain::timestamp::Timestamp;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// The forms in which a token is handed to machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Shape {
    /// For people
    #[default]
    Text,
    /// One JSON object; its fields stay
    Json,
    /// User data for cloud-init
    CloudInit,
    /// A configuration for Ignition (3.4.0)
    Ignition,
    /// A play for Ansible
    Ansible,
    /// The line of --print-join-command
    #[value(skip)]
    JoinCommand,
}

/// A token that was just made.
pub(super) struct Handover {
    pub(super) token: Zeroizing<String>,
    pub(super) endpoint: String,
    pub(super) id: String,
    pub(super) expires: Timestamp,
    pub(super) uses: u32,
}

impl Handover {
    /// What is printed.
    pub(super) fn shown(&self, shape: Shape) -> Zeroizing<String> {
        Zeroizing::new(match shape {
            Shape::Text => self.text(),
            Shape::Json => format!("{:#}\n", self.value()),
            Shape::CloudInit => self.cloud_init(),
            Shape::Ignition => format!("{:#}\n", self.ignition()),
            Shape::Ansible => self.ansible(),
            Shape::JoinCommand => format!("{}\n", *self.command()),
        })
    }

    fn command(&self) -> Zeroizing<String> {
        join_command(&self.token, &self.endpoint)
    }

    fn text(&self) -> String {
        let Self { id, uses, expires, .. } = self;
        let machines = if *uses == 1 { "one machine".to_owned() } else { format!("{uses} machines") };
        let command = self.command();
        format!(
            "Token {id} is good for {machines} until {expires}. Run on the machine:\n\n    {}\n",
            *command
        )
    }

    fn value(&self) -> Value {
        json!({
            "token": *self.token,
            "id": self.id,
            "endpoint": self.endpoint,
            "expires": self.expires.to_string(),
            "joinCommand": *self.command(),
        })
    }

    /// cloud-init's user data: the token in a file of its own, the rest as the
    /// agent's configuration.
    fn cloud_init(&self) -> String {
        let Self { token, endpoint, .. } = self;
        format!(
            r#"#cloud-config
write_files:
  - path: {TOKEN_FILE}
    owner: root:root
    permissions: "0600"
    content: "{token}"
  - path: {CONFIGURATION}
    owner: root:root
    permissions: "0644"
    content: |
      apiVersion: config.berth.dev/v1alpha1
      kind: AgentConfiguration
      server: "{endpoint}"
      tokenFile: {TOKEN_FILE}
runcmd:
  - [systemctl, enable, --now, berth-agent.service]
"#,
            token = **token
        )
    }

    /// Ignition, configuration specification 3.4.0. Ignition runs before there is
    /// a system, so the unit is carried along.
    fn ignition(&self) -> Value {
        let file = |path: &str, mode: u32, text: &str| {
            let source = format!("data:;base64,{}", data_encoding::BASE64.encode(text.as_bytes()));
            json!({ "path": path, "mode": mode, "overwrite": true, "contents": { "source": source } })
        };
        let configuration = format!(
            "apiVersion: config.berth.dev/v1alpha1\nkind: AgentConfiguration\nserver: \"{}\"\ntokenFile: {TOKEN_FILE}\n",
            self.endpoint
        );
        json!({
            "ignition": { "version": "3.4.0" },
            "storage": { "files": [
                file(TOKEN_FILE, 0o600, &self.token),
                file(CONFIGURATION, 0o644, &configuration),
            ] },
            "systemd": { "units": [ { "name": "berth-agent.service", "enabled": true, "contents": UNIT } ] },
        })
    }

    /// A play; `no_log` keeps the token out of Ansible's own output.
    fn ansible(&self) -> String {
        let Self { token, endpoint, .. } = self;
        format!(
            r#"- name: Join these machines to the cluster
  hosts: all
  become: true
  gather_facts: false
  tasks:
    - name: Join this machine
      ansible.builtin.command:
        argv: [berth-agent, join, "{endpoint}", --token-file, "-"]
        stdin: "{token}"
        stdin_add_newline: false
      register: berth
      changed_when: "'already' not in berth.stdout"
      no_log: true
    - name: Attend and renew
      ansible.builtin.systemd_service:
        name: berth-agent.service
        enabled: true
        state: started
"#,
            token = **token
        )
    }
}

/// The line to paste. `printf` is a builtin of every shell: no process has the
/// secret among its arguments.
pub(super) fn join_command(token: &str, endpoint: &str) -> Zeroizing<String> {
    Zeroizing::new(format!("printf %s '{token}' | sudo berth-agent join {endpoint} --token-file -"))
}

/// Where provisioned machines find their token; the agent removes it after use.
const TOKEN_FILE: &str = "/etc/berth/join-token";

/// The agent's configuration.
const CONFIGURATION: &str = "/etc/berth/agent.yaml";

/// What runs the agent where no package has brought its unit.
const UNIT: &str = "\
[Unit]
Description=Berth agent
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
ExecStart=/usr/local/bin/berth-agent run
Restart=always
RestartSec=5
RestartPreventExitStatus=2 3 4 5

[Install]
WantedBy=multi-user.target
";
