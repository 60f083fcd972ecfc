# The tree of `bin/package tree` as a Nix package: the libraries are those that fleethub's own tests run with.
{
  lib,
  stdenv,
  autoPatchelfHook,
  python311,
  # where bin/package has put the tree; its Python must be of the same version as `python`
  tree ? ../../dist/tree,
  python ? python311,
}:
stdenv.mkDerivation {
  pname = "fleethub";
  version = "0.1.0";
  src = lib.cleanSource tree;
  nativeBuildInputs = [ autoPatchelfHook ];
  buildInputs = [ stdenv.cc.cc.lib ];
  dontConfigure = true;
  dontBuild = true;
  installPhase = ''
    runHook preInstall
    mkdir -p $out/lib
    cp -r usr/lib/fleethub $out/lib/fleethub
    rm $out/lib/fleethub/bin/python
    ${python.interpreter} -m venv --without-pip $out/lib/fleethub
    substituteInPlace $out/lib/fleethub/bin/fleethub --replace-fail /usr/lib/fleethub $out/lib/fleethub
    mkdir $out/bin
    ln -s $out/lib/fleethub/bin/fleethub $out/bin/fleethub
    mkdir -p $out/lib/systemd/system
    $out/bin/fleethub systemd-unit | sed '1,/^$/d' > $out/lib/systemd/system/fleethub.service
    runHook postInstall
  '';
  meta = {
    description = "A hub for fleets of bare-metal servers that cannot freeze unnoticed and loses no command";
    license = lib.licenses.mit;
    platforms = lib.platforms.linux;
    mainProgram = "fleethub";
  };
}
