//! The wire as it was published: `golden/berth.binpb` holds the descriptors, and
//! nothing that is in them may be taken away or changed.

#![expect(clippy::expect_used, reason = "a test that panics has failed, as it should")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
};

const HOW_TO_REFRESH: &str = "\
    If the change only adds, and is meant, refresh the file:\n    \
    UPDATE_GOLDEN=1 cargo test -p berth-proto --test golden\n\
    A refresh never takes away: v1 is promised, a different wire is a new package.";

#[test]
fn the_wire_is_as_it_was_published() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/berth.binpb");
    let published = std::fs::read(&golden).unwrap_or_default();
    let broken = broken(&decode(&published), &decode(berth_proto::DESCRIPTORS));
    assert!(broken.is_empty(), "peers that speak the published wire would break:\n{}", broken.join("\n"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, berth_proto::DESCRIPTORS).expect("the golden file can be written");
    } else {
        assert!(published == berth_proto::DESCRIPTORS, "the wire has changed.\n{HOW_TO_REFRESH}");
    }
}

#[test]
fn every_kind_of_break_is_found() {
    type Change = fn(&mut FileDescriptorSet);
    let breaks: [(&str, Change); 9] = [
        ("message berth.join.v1.Hello: gone", |set| {
            file(set, "initialization").message_type.retain(|message| message.name() != "Hello");
        }),
        ("field berth.join.v1.Hello 4: gone", |set| {
            hello(set).field.retain(|field| field.name() != "token_id");
        }),
        ("field berth.join.v1.Hello 4: gone", |set| hello_field(set).number = Some(90)),
        ("field berth.join.v1.Hello 4: was optional String token_id", |set| {
            hello_field(set).set_type(Type::Bytes);
        }),
        ("field berth.join.v1.Hello 4: was optional String token_id", |set| {
            hello_field(set).name = Some("token".to_owned());
        }),
        ("value berth.join.v1.Mechanism 1: gone", |set| {
            file(set, "initialization").enum_type[0].value.truncate(1);
        }),
        ("rpc berth.join.v1.JoinService.Renew: gone", |set| {
            file(set, "service").service[0].method.retain(|rpc| rpc.name() != "Renew");
        }),
        ("rpc berth.join.v1.JoinService.Enroll: was stream", |set| {
            file(set, "service").service[0].method[0].client_streaming = Some(false);
        }),
        ("package berth.join.v1 in berth/join/v1/service.proto: gone", |set| {
            set.file.retain(|file| !file.name().ends_with("join/v1/service.proto"));
        }),
    ];
    let now = decode(berth_proto::DESCRIPTORS);
    for (wanted, change) in breaks {
        let mut changed = now.clone();
        change(&mut changed);
        let found = broken(&now, &changed);
        assert!(found.iter().any(|line| line.starts_with(wanted)), "{wanted}: {found:?}");
    }
}

#[test]
fn an_addition_breaks_nothing() {
    let now = decode(berth_proto::DESCRIPTORS);
    let mut changed = now.clone();
    let mut added = hello(&mut changed).field[0].clone();
    (added.name, added.number) = (Some("added".to_owned()), Some(90));
    hello(&mut changed).field.push(added);
    assert_eq!(broken(&now, &changed), Vec::<String>::new());
}

/// What of the published wire is gone or different.
fn broken(published: &FileDescriptorSet, now: &FileDescriptorSet) -> Vec<String> {
    let now = promises(now);
    let broken = |(what, was): (String, String)| match now.get(&what) {
        None => Some(format!("{what}: gone")),
        Some(is) if *is != was => Some(format!("{what}: was {was}, is {is}")),
        Some(_) => None,
    };
    promises(published).into_iter().filter_map(broken).collect()
}

/// All that peers rely on, by what names it on the wire or in code.
fn promises(set: &FileDescriptorSet) -> BTreeMap<String, String> {
    let mut promises = BTreeMap::new();
    for file in &set.file {
        let package = file.package();
        promises.insert(format!("package {package} in {}", file.name()), String::new());
        file.message_type.iter().for_each(|message| promise_message(&mut promises, package, message));
        file.enum_type.iter().for_each(|words| promise_enum(&mut promises, package, words));
        for service in &file.service {
            for rpc in &service.method {
                let name = format!("rpc {package}.{}.{}", service.name(), rpc.name());
                promises.insert(name, shape_of_rpc(rpc));
            }
        }
    }
    promises
}

fn promise_message(promises: &mut BTreeMap<String, String>, within: &str, message: &DescriptorProto) {
    let name = format!("{within}.{}", message.name());
    promises.insert(format!("message {name}"), String::new());
    for field in &message.field {
        promises.insert(format!("field {name} {}", field.number()), shape_of_field(message, field));
    }
    message.nested_type.iter().for_each(|nested| promise_message(promises, &name, nested));
    message.enum_type.iter().for_each(|words| promise_enum(promises, &name, words));
}

fn promise_enum(promises: &mut BTreeMap<String, String>, within: &str, words: &EnumDescriptorProto) {
    for value in &words.value {
        let name = format!("value {within}.{} {}", words.name(), value.number());
        promises.insert(name, value.name().to_owned());
    }
}

fn shape_of_field(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let label = field.label().as_str_name().trim_start_matches("LABEL_").to_lowercase();
    let oneof = field.oneof_index.and_then(|index| message.oneof_decl.get(usize::try_from(index).ok()?));
    let oneof = oneof.map(|oneof| format!(" in {}", oneof.name())).unwrap_or_default();
    format!("{label} {:?}{} {}{oneof}", field.r#type(), field.type_name(), field.name())
}

fn shape_of_rpc(rpc: &MethodDescriptorProto) -> String {
    let stream = |streaming| if streaming { "stream" } else { "one" };
    let (asks, answers) = (stream(rpc.client_streaming()), stream(rpc.server_streaming()));
    format!("{asks} {} to {answers} {}", rpc.input_type(), rpc.output_type())
}

fn decode(descriptors: &[u8]) -> FileDescriptorSet {
    FileDescriptorSet::decode(descriptors).expect("a set of descriptors")
}

fn file<'a>(set: &'a mut FileDescriptorSet, phase: &str) -> &'a mut prost_types::FileDescriptorProto {
    let name = format!("berth/join/v1/{phase}.proto");
    set.file.iter_mut().find(|file| file.name() == name).expect("a file of that name")
}

fn hello(set: &mut FileDescriptorSet) -> &mut DescriptorProto {
    let messages = &mut file(set, "initialization").message_type;
    messages.iter_mut().find(|message| message.name() == "Hello").expect("Hello")
}

fn hello_field(set: &mut FileDescriptorSet) -> &mut FieldDescriptorProto {
    hello(set).field.iter_mut().find(|field| field.number() == 4).expect("token_id")
}
