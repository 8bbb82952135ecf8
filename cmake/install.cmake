# Installs headers, CMake package and pkg-config file. Nothing in it depends on the processor, so it goes to share/.
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/instinfer)

# One export file for each component, so that a user of the core never meets a missing Eigen.
foreach(component instinfer instinfer_reference instinfer_cpu instinfer_cuda instinfer_mpi)
  install(TARGETS ${component} EXPORT ${component} FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(EXPORT ${component} NAMESPACE instinfer:: FILE ${component}Targets.cmake DESTINATION ${package_dir})
endforeach()

configure_package_config_file(cmake/instinferConfig.cmake.in instinferConfig.cmake INSTALL_DESTINATION ${package_dir}
                              NO_SET_AND_CHECK_MACRO NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file(instinferConfigVersion.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES cmake/dependencies.cmake ${CMAKE_CURRENT_BINARY_DIR}/instinferConfig.cmake
        ${CMAKE_CURRENT_BINARY_DIR}/instinferConfigVersion.cmake DESTINATION ${package_dir})

configure_file(cmake/instinfer.pc.in instinfer.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/instinfer.pc DESTINATION ${CMAKE_INSTALL_DATADIR}/pkgconfig)
