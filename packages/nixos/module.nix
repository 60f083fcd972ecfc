# services.fleethub: the hub as a NixOS service. Import it, and set services.fleethub.enable = true.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.fleethub;
  toml = pkgs.formats.toml { };
  settings = toml.generate "fleethub.toml" cfg.settings;
  port = listen: lib.toInt (lib.last (lib.splitString ":" listen));
  operators = cfg.settings.operators.listen or "127.0.0.1:7700";
  agents = cfg.settings.agents.listen or "127.0.0.1:7701";
  low = lib.any (listen: port listen < 1024) [
    operators
    agents
  ];
in
{
  options.services.fleethub = {
    enable = lib.mkEnableOption "the fleethub hub";
    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      description = "The package; by default it is made of the tree that `bin/package tree` has put into dist/tree.";
    };
    settings = lib.mkOption {
      type = toml.type;
      default = { };
      example = {
        operators.listen = "[::]:7700";
        operators.url = "https://fleet.example.org";
        agents.listen = "[::]:7701";
        insecure = true;
      };
      description = ''
        The content of fleethub.toml. It is readable by everybody in the Nix store: leave out the URLs of alarms, which
        hold passwords, and use `settingsFile` for them.
      '';
    };
    settingsFile = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = "/etc/fleethub/fleethub.toml";
      description = "A file in place of `settings`, which the user fleethub can read and nobody but root can change.";
    };
    openFirewall = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether the firewall lets in operators and agents at the ports of `settings`.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.settingsFile == null || cfg.settings == { };
        message = "services.fleethub: set settings or settingsFile, not both";
      }
    ];
    environment.systemPackages = [ cfg.package ];
    users.groups.fleethub = { };
    users.users.fleethub = {
      isSystemUser = true;
      group = "fleethub";
      home = "/var/lib/fleethub";
    };
    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [
      (port operators)
      (port agents)
    ];
    # the package brings the unit that `fleethub systemd-unit` prints; this adds to it
    systemd.packages = [ cfg.package ];
    systemd.services.fleethub = {
      wantedBy = [ "multi-user.target" ];
      # whoever types `fleethub` finds the same settings there
      preStart = "ln -sfn ${
        if cfg.settingsFile != null then toString cfg.settingsFile else settings
      } /var/lib/fleethub/fleethub.toml";
      serviceConfig = lib.mkIf low {
        CapabilityBoundingSet = "CAP_NET_BIND_SERVICE";
        AmbientCapabilities = "CAP_NET_BIND_SERVICE";
      };
    };
  };
}
