//! What kubeadm says of a cluster: `cluster-info`, which anyone may read, and the
//! ClusterConfiguration.

use std::net::IpAddr;

use data_encoding::BASE64;
use ipnet::IpNet;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;

use super::Problem;

/// The place of a cluster's DNS among its services (kubeadm `GetDNSIP`).
const DNS_PLACE: u128 = 10;

/// The port of an API server that names none.
const USUAL_PORT: u16 = 6443;

/// The largest CA bundle, in bytes.
const LARGEST_BUNDLE: usize = 64 * 1024;

/// The way to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) server: String,
    pub(super) ca_bundle: String,
}

/// What a ClusterConfiguration says, as far as nodes are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ClusterConfiguration {
    pub(super) name: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) dns: Option<IpAddr>,
    pub(super) domain: Option<String>,
}

/// Reads the kubeconfig of `cluster-info`: a cluster and nothing else.
pub(super) fn cluster_info(text: &str, object: &str) -> Result<Way, Problem> {
    let wrong = |field: &str, problem: &str| Problem::at(object, &format!("kubeconfig: {field}"), problem);
    let read = super::yaml(text).map_err(|problem| wrong("the document", &problem))?;
    let people = read.get("users").and_then(Value::as_array);
    let tells =
        |user: &Value| user.get("user").and_then(Value::as_object).is_some_and(|user| !user.is_empty());
    if people.is_some_and(|people| people.iter().any(tells)) {
        return Err(wrong("users", "it holds credentials, and anyone may read it; take them out"));
    }
    let cluster = read.pointer("/clusters/0/cluster").unwrap_or(&Value::Null);
    let said = |key: &str| cluster.get(key).and_then(Value::as_str);
    if cluster.get("insecure-skip-tls-verify").and_then(Value::as_bool) == Some(true) {
        return Err(wrong("clusters[0].cluster.insecure-skip-tls-verify", "it must not be true"));
    }
    let server = said("server").filter(|url| is_url(url));
    let server = server.ok_or_else(|| wrong("clusters[0].cluster.server", "it is no https:// URL"))?;
    let ca = "clusters[0].cluster.certificate-authority-data";
    let data = said("certificate-authority-data").unwrap_or_default();
    let pem = BASE64.decode(data.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let ca_bundle = pem.ok_or_else(|| wrong(ca, "it is no base64 of PEM certificates"))?;
    check_bundle(&ca_bundle).map_err(|problem| wrong(ca, problem))?;
    Ok(Way { server: server.trim_end_matches('/').to_owned(), ca_bundle })
}

/// Reads a ClusterConfiguration (kubeadm.k8s.io, any version: these fields have
/// stood in all of them).
pub(super) fn cluster_configuration(text: &str, object: &str) -> Result<ClusterConfiguration, Problem> {
    let wrong =
        |field: &str, problem: &str| Problem::at(object, &format!("ClusterConfiguration: {field}"), problem);
    let read = super::yaml(text).map_err(|problem| wrong("the document", &problem))?;
    let said = |path: &str| read.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty());
    let endpoint = said("/controlPlaneEndpoint").map(|text| {
        endpoint(text).ok_or_else(|| wrong("controlPlaneEndpoint", "it is not HOST or HOST:PORT"))
    });
    let dns = said("/networking/serviceSubnet").map(|text| {
        dns(text)
            .ok_or_else(|| wrong("networking.serviceSubnet", "it is no network with room for a DNS service"))
    });
    Ok(ClusterConfiguration {
        name: said("/clusterName").map(str::to_owned),
        endpoint: endpoint.transpose()?,
        dns: dns.transpose()?,
        domain: said("/networking/dnsDomain").map(str::to_owned),
    })
}

/// Says what is wrong with a bundle of CA certificates, PEM.
pub(super) fn check_bundle(pem: &str) -> Result<(), &'static str> {
    if pem.contains("PRIVATE KEY") {
        return Err("it holds a private key, and must hold certificates alone");
    }
    if pem.len() > LARGEST_BUNDLE {
        return Err("it has more than 65536 bytes");
    }
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(()),
        Ok(_) | Err(_) => Err("it has no PEM certificate"),
    }
}

/// Whether a text is the URL of an API server, as an agent takes it.
pub(super) fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").unwrap_or_default();
    !rest.is_empty() && rest.len() <= 300 && rest.chars().all(|c| c.is_ascii_graphic())
}

/// `HOST` or `HOST:PORT` as a URL.
fn endpoint(text: &str) -> Option<String> {
    let port = match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => return Some(format!("https://[{address}]:{USUAL_PORT}")),
        Ok(IpAddr::V4(_)) => None,
        Err(_) => text.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')),
    };
    let url = match port {
        Some((host, port)) if !host.is_empty() => format!("https://{host}:{}", port.parse::<u16>().ok()?),
        Some(_) => return None,
        None => format!("https://{text}:{USUAL_PORT}"),
    };
    is_url(&url).then_some(url)
}

/// The tenth address of the first network of the services.
fn dns(subnets: &str) -> Option<IpAddr> {
    let network: IpNet = subnets.split(',').next()?.trim().parse().ok()?;
    let address = match network.network() {
        IpAddr::V4(first) => {
            let place = u32::try_from(DNS_PLACE).ok()?;
            IpAddr::V4(u32::from(first).checked_add(place)?.into())
        }
        IpAddr::V6(first) => IpAddr::V6(u128::from(first).checked_add(DNS_PLACE)?.into()),
    };
    network.contains(&address).then_some(address)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A CA's certificate; nobody has its key.
    pub(in crate::profiles::kubernetes) fn ca(name: &str) -> String {
        let key = rcgen::KeyPair::generate().expect("randomness");
        let mut wanted = rcgen::CertificateParams::default();
        wanted.distinguished_name.push(rcgen::DnType::CommonName, name);
        wanted.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        wanted.self_signed(&key).expect("its own key").pem()
    }

    /// `cluster-info` as kubeadm writes it, with more at its end.
    pub(in crate::profiles::kubernetes) fn kubeconfig(server: &str, ca: &str, more: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    certificate-authority-data: {}\n    server: {server}\n  name: \"\"\ncontexts: null\ncurrent-context: \"\"\npreferences: {{}}\n{more}",
            BASE64.encode(ca.as_bytes())
        )
    }

    #[test]
    fn cluster_info_is_a_way_and_nothing_secret() {
        let ca = ca("cluster");
        let good = kubeconfig("https://10.0.0.1:6443", &ca, "users: null\n");
        let way = cluster_info(&good, "ConfigMap o").expect("as kubeadm writes it");
        assert_eq!((way.server.as_str(), &way.ca_bundle), ("https://10.0.0.1:6443", &ca));
        for (text, field) in [
            (kubeconfig("https://h:1", &ca, "users: [{name: a, user: {token: t0ken}}]"), "users"),
            (kubeconfig("http://h:1", &ca, ""), "clusters[0].cluster.server"),
            (kubeconfig("https://h:1", "x", ""), "clusters[0].cluster.certificate-authority-data"),
            (
                kubeconfig("https://h:1", &format!("{ca}-----BEGIN PRIVATE KEY-----"), ""),
                "clusters[0].cluster.certificate-authority-data",
            ),
            (
                "clusters: [{cluster: {insecure-skip-tls-verify: true}}]".to_owned(),
                "clusters[0].cluster.insecure-skip-tls-verify",
            ),
            (String::new(), "clusters[0].cluster.server"),
        ] {
            let why = cluster_info(&text, "ConfigMap o").expect_err(field);
            assert_eq!(why.field, format!("ConfigMap o, kubeconfig: {field}"), "{}", why.problem);
            assert!(!why.problem.contains("t0ken"));
        }
    }

    #[test]
    fn a_cluster_configuration_tells_names_dns_and_the_endpoint() {
        let text = "apiVersion: kubeadm.k8s.io/v1beta4\nclusterName: prod\ncontrolPlaneEndpoint: cp.example.com\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.3\nnetworking:\n  dnsDomain: cluster.local\n  serviceSubnet: 10.96.0.0/12,fd00::/112\n";
        let read = cluster_configuration(text, "ConfigMap o").expect("as kubeadm writes it");
        assert_eq!(read.name.as_deref(), Some("prod"));
        assert_eq!(read.endpoint.as_deref(), Some("https://cp.example.com:6443"));
        assert_eq!(read.dns, "10.96.0.10".parse().ok());
        assert_eq!(read.domain.as_deref(), Some("cluster.local"));
        assert_eq!(cluster_configuration("", "o"), Ok(ClusterConfiguration::default()));
        for text in [
            "controlPlaneEndpoint: ':6443'",
            "controlPlaneEndpoint: 'h:x'",
            "networking: {serviceSubnet: 10.0.0.0/30}",
        ] {
            assert!(cluster_configuration(text, "o").is_err(), "{text}");
        }
    }

    #[test]
    fn endpoints_and_dns_are_made_for_both_families() {
        assert_eq!(endpoint("10.0.0.1:443").as_deref(), Some("https://10.0.0.1:443"));
        assert_eq!(endpoint("10.0.0.1").as_deref(), Some("https://10.0.0.1:6443"));
        assert_eq!(endpoint("fd00::1").as_deref(), Some("https://[fd00::1]:6443"));
        assert_eq!(endpoint("[fd00::1]:443").as_deref(), Some("https://[fd00::1]:443"));
        assert_eq!(endpoint("[fd00::1]").as_deref(), Some("https://[fd00::1]:6443"));
        assert_eq!(dns("fd00::/112"), "fd00::a".parse().ok());
        assert_eq!(dns("nothing"), None);
    }
}
