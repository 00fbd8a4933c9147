use kube1_store::EmbeddedStore;

use super::*;

struct World {
    allocator: Arc<ServiceAllocator>,
    storage: Storage,
    table: ResourceTable,
    _dir: tempfile::TempDir,
}

fn config() -> AllocatorConfig {
    AllocatorConfig { service_cidrs: vec!["10.43.0.0/24".parse().unwrap()], node_ports: 30000..=30063 }
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(&dir.path().join("db")).unwrap());
    let table = ResourceTable::builtin();
    let storage = Storage::open(store, &table, None).await.unwrap();
    World { allocator: ServiceAllocator::new(&storage, &table, config()), storage, table, _dir: dir }
}

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "ns", "name": name}, "spec": spec})
}

impl World {
    async fn create(&self, name: &str, spec: Value) -> Result<Value, Status> {
        let mut object = service(name, spec);
        let allocation = self.allocator.allocate(&mut object, None)?;
        let services = self.storage.collection(&self.table.stored("", "services").unwrap());
        services.create(object.clone()).await.unwrap();
        allocation.commit().await;
        Ok(object)
    }

    fn record(&self, ip: &str) -> Option<Value> {
        let row = self.table.stored("networking.k8s.io", "ipaddresses").unwrap();
        self.storage.collection(&row).get("", ip).map(|o| o.value())
    }
}

#[tokio::test]
async fn addresses_are_given_once_and_given_back() {
    let world = world().await;
    let made = world.create("a", json!({"ports": [{"port": 80}]})).await.unwrap();
    let ip = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert_eq!(made["spec"]["clusterIPs"], json!([ip]));
    assert_eq!(
        (&made["spec"]["ipFamilies"], &made["spec"]["ipFamilyPolicy"]),
        (&json!(["IPv4"]), &json!("SingleStack"))
    );
    assert_eq!(world.record(&ip).unwrap()["spec"]["parentRef"]["name"], "a");
    let error = world.create("b", json!({"clusterIP": ip})).await.unwrap_err();
    assert_eq!(
        error.message(),
        format!(
            "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"{ip}\"]: failed to allocate IP {ip}: provided IP is already allocated"
        )
    );
    let error = world.create("b", json!({"clusterIP": "10.99.0.1"})).await.unwrap_err();
    assert!(error.message().contains("The range of valid IPs is 10.43.0.0/24"), "{error}");

    // A write that fails later gives back what it took.
    let mut failed = service("c", json!({"clusterIP": "10.43.0.10"}));
    drop(world.allocator.allocate(&mut failed, None).unwrap());
    world.create("c", json!({"clusterIP": "10.43.0.10"})).await.unwrap();

    world.allocator.release(&made).await;
    assert!(world.record(&ip).is_none());
    let headless = world.create("h", json!({"clusterIP": "None", "selector": {"a": "b"}})).await.unwrap();
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let external = world.create("e", json!({"type": "ExternalName", "externalName": "x"})).await.unwrap();
    assert!(external["spec"].get("clusterIP").is_none() && external["spec"].get("ipFamilies").is_none());
    let error = world.create("d", json!({"ipFamilyPolicy": "RequireDualStack"})).await.unwrap_err();
    assert!(error.message().contains("not configured for dual-stack"), "{error}");
}

#[tokio::test]
async fn node_ports_are_given_shared_and_freed() {
    let world = world().await;
    let ports =
        json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}, {"port": 80, "nodePort": 30001}]);
    let made = world.create("a", json!({"type": "NodePort", "ports": ports})).await.unwrap();
    let given = |service: &Value, index: usize| service["spec"]["ports"][index]["nodePort"].as_u64().unwrap();
    assert_eq!((given(&made, 0), given(&made, 2)), (given(&made, 1), 30001));
    assert!((30016..=30063).contains(&given(&made, 0)));
    let taken = json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30001}]});
    let error = world.create("b", taken.clone()).await.unwrap_err();
    assert_eq!(
        error.message(),
        "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated"
    );
    let outside = json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 99}]});
    assert!(world.create("b", outside).await.unwrap_err().message().contains("valid ports is 30000-30063"));

    let mut smaller = made.clone();
    smaller["spec"]["ports"] = json!([{"port": 53, "protocol": "UDP", "nodePort": given(&made, 0)}]);
    world.allocator.allocate(&mut smaller, Some(&made)).unwrap().commit().await;
    assert_eq!(smaller["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    world.create("b", taken).await.unwrap();
    let balancer = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 1}]});
    let balancer = world.create("l", balancer).await.unwrap();
    assert!(balancer["spec"]["ports"][0].get("nodePort").is_none());
    assert!(balancer["spec"]["healthCheckNodePort"].as_u64().is_some());
}

#[tokio::test]
async fn a_restart_knows_what_is_taken_and_repairs_records() {
    let world = world().await;
    world
        .create("a", json!({"type": "NodePort", "clusterIP": "10.43.0.7", "ports": [{"port": 1, "nodePort": 30002}]}))
        .await
        .unwrap();
    world.allocator.remove_record("10.43.0.7".parse().unwrap()).await;
    world.allocator.record("10.43.0.8".parse().unwrap(), "ns", "gone").await;
    let restarted = ServiceAllocator::new(&world.storage, &world.table, config());
    restarted.repair().await;
    assert!(world.record("10.43.0.7").is_some() && world.record("10.43.0.8").is_none());
    let mut again = service("b", json!({"clusterIP": "10.43.0.7"}));
    assert!(restarted.allocate(&mut again, None).is_err());
    let mut again = service("b", json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30002}]}));
    assert!(restarted.allocate(&mut again, None).is_err());
}

#[tokio::test]
async fn further_ranges_are_used_once_ready_and_kept_while_in_use() {
    let world = world().await;
    let ranges = world.storage.collection(&world.table.stored("networking.k8s.io", "servicecidrs").unwrap());
    let cancel = CancellationToken::new();
    let running = tokio::spawn({
        let (allocator, cancel) = (world.allocator.clone(), cancel.clone());
        async move { allocator.run(cancel).await }
    });
    let until = async |done: &dyn Fn() -> bool| {
        let waiting = async {
            while !done() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await.unwrap();
    };
    let ready = |name: &str, status: &str| {
        let object = ranges.get("", name).map(|o| o.value()).unwrap_or_default();
        object["status"]["conditions"][0]["status"] == status
    };
    until(&|| ready("kubernetes", "True")).await;
    assert_eq!(ranges.get("", "kubernetes").unwrap().value()["spec"]["cidrs"], json!(["10.43.0.0/24"]));
    assert!(world.create("a", json!({"clusterIP": "10.44.0.9"})).await.is_err());
    let more = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"}, "spec": {"cidrs": ["10.44.0.0/24"]}});
    ranges.create(more).await.unwrap();
    until(&|| ready("more", "True")).await;
    let made = world.create("a", json!({"clusterIP": "10.44.0.9"})).await.unwrap();
    let object = ranges.get("", "more").unwrap();
    let mut deleting = object.value();
    assert_eq!(deleting["metadata"]["finalizers"].as_array().unwrap().len(), 1);
    deleting["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    ranges.update(deleting, object.revision()).await.unwrap();
    until(&|| ready("more", "False")).await;
    world.allocator.release(&made).await;
    until(&|| ranges.get("", "more").is_none()).await;
    cancel.cancel();
    running.await.unwrap();
}
