use super::file::load;
use super::*;

const HEAD: &str = "apiVersion: config.berth.dev/v1alpha1\nkind: NodeInventory\n";

fn reserved() -> Reserved {
    Reserved { hosts: vec!["192.0.2.1".to_owned(), "api.example".to_owned()] }
}

fn read(nodes: &str) -> Result<Inventory, InventoryError> {
    Inventory::read(&format!("{HEAD}{nodes}"), Path::new("inventory.yaml"), &reserved())
}

/// An inventory of these entries.
pub(in crate::registry::kube) fn inventory(nodes: &str) -> Inventory {
    let text = format!("{HEAD}nodes: [{nodes}]\n");
    Inventory::read(&text, Path::new("inventory.yaml"), &Reserved::default()).expect("an inventory")
}

/// The error as it is told, with its causes.
fn refused(nodes: &str) -> String {
    format!("{:#}", anyhow::Error::from(read(nodes).expect_err(nodes)))
}

fn whose(inventory: &Inventory, address: &str) -> Option<String> {
    inventory.holder(address.parse().expect("an address")).map(ToString::to_string)
}

#[test]
fn it_says_whose_an_address_of_either_family_and_a_name_is() {
    let inventory = read(
        "nodes:\n- name: n1\n  addresses: [203.0.113.7, \"2001:db8::7\"]\n  dnsNames: [n1.example.com]\n- {name: n2, addresses: [\"::ffff:203.0.113.8\"]}\n",
    )
    .expect("it is one");
    assert_eq!(whose(&inventory, "203.0.113.7").as_deref(), Some("n1"));
    assert_eq!(whose(&inventory, "2001:db8::7").as_deref(), Some("n1"));
    assert_eq!(whose(&inventory, "203.0.113.8").as_deref(), Some("n2"));
    assert_eq!(whose(&inventory, "203.0.113.9"), None);
    assert_eq!(inventory.holder_of_name("N1.Example.com").map(NodeName::as_str), Some("n1"));
    assert_eq!(inventory.holder_of_name("n1"), None);
    assert_eq!(read("nodes: []\n").expect("nobody"), Inventory::default());
    assert_eq!(read("").expect("nobody"), Inventory::default());
}

#[test]
fn what_is_not_understood_is_named_by_line_and_field() {
    for (nodes, start, wanted) in [
        ("nodez: []\n", "inventory.yaml:3:1: ", "nodez"),
        ("nodes:\n- name: N1\n", "inventory.yaml:4:9: nodes[0].name", "'N'"),
        (
            "nodes:\n- name: n1\n  addresses: [10.0.0.1/24]\n",
            "inventory.yaml:5:15: nodes[0].addresses[0]",
            "address",
        ),
        ("nodes:\n- addresses: [10.0.0.1]\n", "inventory.yaml:4:3: nodes[0]", "name"),
        (
            "nodes:\n- name: n1\n  dnsNames: [\"*.example\"]\n",
            "inventory.yaml:5:14: nodes[0].dnsNames[0]",
            "'*'",
        ),
    ] {
        let told = refused(nodes);
        assert!(told.starts_with(start) && told.contains(wanted), "{told}");
    }
    let other = Inventory::read("apiVersion: v1\nkind: ConfigMap\n", Path::new("i"), &reserved());
    assert!(other.is_err(), "the ConfigMap itself is not what it holds");
}

#[test]
fn it_gives_nothing_twice_and_nothing_that_is_not_one_machines() {
    for (nodes, told) in [
        ("nodes: [{name: n1}, {name: n1}]", "nodes[1].name: n1 is written above"),
        (
            "nodes: [{name: n1, addresses: [192.0.2.1]}]",
            "nodes[0].addresses[0]: 192.0.2.1 is the cluster's own",
        ),
        (
            "nodes: [{name: n1, addresses: [10.0.0.1, 127.0.0.1]}]",
            "nodes[0].addresses[1]: 127.0.0.1 is no address of one",
        ),
        ("nodes: [{name: n1, addresses: [\"::\"]}]", ":: is no address of one machine alone"),
        ("nodes: [{name: n1, addresses: [\"fe80::1\"]}]", "fe80::1 is no address of one machine alone"),
        (
            "nodes: [{name: n1, addresses: [10.0.0.1]}, {name: n2, addresses: [\"::ffff:10.0.0.1\"]}]",
            "nodes[1].addresses[0]: 10.0.0.1 is given to n1 already",
        ),
        ("nodes: [{name: n1, dnsNames: [kubernetes.default]}]", "kubernetes.default is the cluster's own"),
        ("nodes: [{name: n1, dnsNames: [api.example]}]", "api.example is the cluster's own"),
        (
            "nodes: [{name: n1, dnsNames: [n2]}, {name: n2}]",
            "nodes[0].dnsNames[0]: n2 is the name of another node",
        ),
        ("nodes: [{name: n1, dnsNames: [a.b]}, {name: n2, dnsNames: [a.b]}]", "a.b is given to n1 already"),
        (
            "nodes: [{name: n1, dnsNames: [a, b, c, d, e, f, g, h]}]",
            "8 addresses and names; a node may have 7",
        ),
    ] {
        let found = refused(nodes);
        assert!(found.starts_with("inventory.yaml: nodes[") && found.contains(told), "{found}");
    }
    let many = refused(
        "nodes: [{name: a, addresses: [127.0.0.1, 127.0.0.2, 127.0.0.3, 127.0.0.4, 127.0.0.5, 127.0.0.6]}]",
    );
    assert!(many.contains("addresses[4]") && many.ends_with("; and 1 more"), "{many}");
}

#[test]
fn a_new_file_is_taken_and_a_bad_one_leaves_the_last_in_force() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("inventory.yaml");
    let file = InventoryFile::open(path.clone(), reserved());
    let holder = |file: &InventoryFile| whose(&file.now().0, "10.0.0.1");
    assert_eq!((holder(&file), file.now().1), (None, None), "no file is no inventory");

    let write = |nodes: &str| std::fs::write(&path, format!("{HEAD}{nodes}")).expect("writable");
    write("nodes: [{name: n1, addresses: [10.0.0.1]}]\n");
    file.look();
    assert_eq!(holder(&file).as_deref(), Some("n1"));
    write("nodes: [{name: n1, addresses: [10.0.0.1, everywhere]}]\n");
    file.look();
    assert_eq!(holder(&file).as_deref(), Some("n1"));
    let trouble = file.now().1.expect("it is told");
    assert!(trouble.contains("inventory.yaml:3:") && trouble.contains("nodes[0].addresses[1]"), "{trouble}");
    assert!(load(&path, &reserved()).is_err());
    write("nodes: [{name: n2, addresses: [10.0.0.1]}]\n");
    file.look();
    assert_eq!((holder(&file).as_deref(), file.now().1), (Some("n2"), None));
    std::fs::remove_file(&path).expect("gone");
    file.look();
    assert_eq!((holder(&file), file.now().1), (None, None), "it was taken back");
}
